"""English text for the tests: own sentences of many lengths, and a loader for the shared data sets.

Lengths below are in words; a BERT tokenizer makes roughly 1.2 tokens of each plus [CLS] and [SEP].
"""

import gzip
import json
import os
from pathlib import Path

import pytest

SHORT = (
    "Yes.",
    "Rain again.",
    "Who said that?",
    "The lamp is broken.",
    "Please close the second door.",
    "Nobody had asked the gardener first.",
    "It was, frankly, a waste of time.",
    "Two of the boats never left the harbour.",
    "She laughed, and the whole table laughed with her.",
    "Take the 7:45 train; the later one is slow.",
    "I would not call it a bad film, only long.",
    "Bread, olives, three lemons and whatever fish looks fresh today.",
    "The battery lasts a week if you leave the screen off.",
    "Unbelievably, the cheapest of the five printers was also the quietest.",
    "He read the letter twice before he understood who had written it.",
)

MEDIUM = (
    "The bridge was closed for repairs in March, so the school bus has taken the long way round ever since.",
    "Although the cast is excellent and the photography is lovely, the story never decides what it wants to say.",
    "Our neighbour keeps eleven hens, a goat with one horn, and a very old dog who believes that he owns them all.",
    "When the water in the pot begins to tremble, lower the heat, add the rice, and do not lift the lid "
    "for twelve minutes.",
    "The committee postponed the vote again because the figures it had been sent did not agree with the "
    "ones it had published.",
    "A good map of the valley shows not only the paths but the places where, after heavy rain, the paths "
    "turn into streams.",
    "What surprised the engineers most was not that the valve had failed but that it had failed on "
    "exactly the day predicted.",
    "My grandmother wrote down every book she borrowed, the date on which she returned it, and one word "
    "for what she thought.",
    "The museum moved its collection of clocks into the tower, where for one week each spring all of "
    "them are allowed to strike.",
    "If the package has not arrived by Friday, write to the shop rather than the courier, since only the "
    "sender can start a search.",
    "There is a kind of silence in a theatre just before the curtain goes up that cannot be found "
    "anywhere else in the city.",
    "Critics called it slow; the audience, who had come back for a third evening, did not seem to mind "
    "in the slightest.",
)

LONG = (
    "The town lies on the inside of a bend in the river, and for most of its history that was the only reason anybody "
    "stopped there. Barges that could not pass the shallows were unloaded by hand, and the men who carried the sacks had "
    "to sleep somewhere, eat somewhere, and spend their wages before the next barge came. When the railway arrived it "
    "crossed the river ten miles upstream, and within a generation the warehouses were empty.",
    "I bought this kettle to replace one that had served us for nine years, and I wish I had simply had the old one "
    "repaired. It is handsome, I grant that, and it boils quickly. But the lid needs two hands, the handle becomes too hot "
    "to hold, and the small window that is meant to show the level of the water sits behind the handle, where nobody can "
    "see it. The shop was polite and gave me my money back without a question, which is the best part of the story.",
    "Bees do not sleep in the hive as we imagine, all at once when the light goes. The young ones nap for a few seconds "
    "at a time, at any hour, with their heads inside an empty cell. Only the foragers, who are the oldest, keep to the "
    "day and the night, and they are found at dusk near the edge of the comb, antennae drooping, holding on to each other "
    "by the legs so that none of them falls.",
    "Before you measure anything, decide what you would do with each possible answer. If a figure of ten and a figure of "
    "twenty would lead you to the same decision, the measurement is not worth your afternoon. If they would not, write "
    "down now, before you have seen a single number, where between the two you would change your mind. It is remarkable "
    "how often that sentence cannot be written, and how much work is saved by finding it out so early. The second rule is "
    "to measure two things side by side and never one alone: machines grow warm, other people's programs wake up, and the "
    "clock that you trust was set by someone else. A ratio of two figures taken in the same minute survives all of that; a "
    "single figure does not survive the walk to the meeting. The third rule is the hardest one to follow. When the result "
    "is the one that you hoped for, check it again.",
    "The expedition had planned for cold, for hunger and for the sickness that comes with height, but it had not planned "
    "for boredom. For nineteen days the wind did not drop below the speed at which a man can stand, and for nineteen days "
    "eight people lay in two tents and waited. They mended everything that could be mended. They invented a card game with "
    "rules so involved that two of them later published a book about it. The cook, who spoke rarely, was persuaded to tell "
    "the story of his village, and when he had finished it he was persuaded to tell it again from the point of view of the "
    "mayor. On the twentieth morning the wind stopped as if somebody had shut a door. Nobody moved. It was so quiet that "
    "they could hear the snow settling on the canvas, and for a while, the leader wrote afterwards, every one of them was "
    "hoping that it would begin to blow again. Then the youngest laughed, sat up, and started looking for her boots, and by "
    "nine o'clock the first rope was on its way to the ridge. They reached the summit a little after four, stayed there for "
    "six minutes, took eleven photographs, of which one was sharp, and came down in the dark without a single word being "
    "said that was not about the next step.",
)

SENTENCES = SHORT + MEDIUM + LONG


def batch_of_texts(count):
    """`count` texts, short ones beside long ones; past the first round, neighbours joined so that all differ."""
    number = len(SENTENCES)
    mixed = [SENTENCES[(7 * index) % number] for index in range(number)]  # 7 and 32 share no factor
    return [
        mixed[index % number] if index < number else f"{mixed[index % number]} {SHORT[(index * 11) % len(SHORT)]}"
        for index in range(count)
    ]


def longest_text():
    """All sentences in a row: more than 512 tokens, to be cut to the model's maximum."""
    return " ".join(reversed(SENTENCES))


def data_folder():
    """The shared data folder ($TOKPRUNE_DATA, or `shared/data` beside the checkout), or None."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ["TOKPRUNE_DATA"]) if "TOKPRUNE_DATA" in os.environ else beside
    return folder if folder.is_dir() else None


def load_rows(task, split, limit):
    """The first `limit` rows of a shared data set as dicts with "text", maybe "text_pair", "label".

    Skips the calling test, saying how to provide the data, where the folder is absent.
    """
    folder = data_folder()
    if folder is None:
        pytest.skip("needs the shared data sets: set TOKPRUNE_DATA or put them in `shared/data` beside the checkout")
    with gzip.open(folder / task / f"{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line, _ in zip(lines, range(limit))]
