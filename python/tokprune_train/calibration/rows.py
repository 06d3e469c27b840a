"""Which rows are measured before, between and after stages."""

CALIBRATION_ROWS = 512


def spread(size: int, most: int = CALIBRATION_ROWS) -> range:
    """Places of up to `most` of `size` rows, evenly spread."""
    return range(0, size, max(1, size // most))[:most]
