"""Which rows are measured before, between and after stages."""

CALIBRATION_ROWS = 512


def spread(size: int) -> range:
    """Places of up to CALIBRATION_ROWS of `size` rows, evenly spread."""
    return range(0, size, max(1, size // CALIBRATION_ROWS))[:CALIBRATION_ROWS]
