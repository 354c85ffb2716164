"""Colours of class ids."""

import colorsys


def distinct_palette(num_colours: int) -> list[list[int]]:
    """Return RGB colours (0..255) that differ between neighbouring class ids.

    Hues step by the golden ratio and brightness alternates, so that any prefix of the list is
    spread over the colour circle. Ids 21 apart have nearly one hue and one brightness; they differ
    in saturation.
    """
    colours = []
    for i in range(num_colours):
        hue = (i * 0.618033988749895) % 1.0
        value = (1.0, 0.75, 0.5)[i % 3]
        saturation = (0.8, 0.4)[i // 20 % 2]
        colours.append([round(255 * c) for c in colorsys.hsv_to_rgb(hue, saturation, value)])
    return colours
