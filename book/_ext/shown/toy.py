"""The toy of three gradients in the plane: for the picture without a script, the rules of ``extra/toy/toy.js``.

Points are (x, y) with y upwards. ``tests/test_browser.py`` compares the two, and mean and MGDA with ddlib's strategies.
"""

import json
import math

Point = tuple[float, float]
START: tuple[Point, Point, Point] = ((2.4, 1.0), (0.6, 2.0), (-1.2, 0.9))
SIZE, UNIT = 320, 40  # pixels of the picture, of one unit


def dot(a: Point, b: Point) -> float:
    """The inner product."""
    return a[0] * b[0] + a[1] * b[1]


def combined(*terms: tuple[float, Point]) -> Point:
    """A weighted sum."""
    return sum(w * p[0] for w, p in terms), sum(w * p[1] for w, p in terms)


def mean(gradients: list[Point]) -> Point:
    """The average."""
    return combined(*((1 / len(gradients), g) for g in gradients))


def pcgrad(gradients: list[Point]) -> Point:
    """Each gradient loses its component against those it conflicts with, in their order; then the mean."""
    changed = []
    for place, gradient in enumerate(gradients):
        own = gradient
        for other_place, other in enumerate(gradients):
            if other_place != place and (product := dot(own, other)) < 0:
                own = combined((1, own), (-product / dot(other, other), other))
        changed.append(own)
    return mean(changed)


def least_norm(gradients: list[Point]) -> Point:
    """The point of the triangle nearest the origin."""
    a, b, c = gradients
    signs = [p[0] * q[1] - p[1] * q[0] for p, q in ((a, b), (b, c), (c, a))]
    if all(sign > 0 for sign in signs) or all(sign < 0 for sign in signs):
        return 0.0, 0.0  # inside
    found = []
    for p, q in ((a, b), (b, c), (c, a)):
        edge = combined((1, q), (-1, p))
        length = dot(edge, edge)
        share = 0.0 if length == 0 else min(1.0, max(0.0, -dot(p, edge) / length))
        found.append(combined((1, p), (share, edge)))
    return min(found, key=lambda point: dot(point, point))


def mgda(gradients: list[Point]) -> Point:
    """The direction of the least norm, as long as the gradients are on average; nothing where they cancel."""
    least = least_norm(gradients)
    length, usual = math.sqrt(dot(least, least)), sum(math.sqrt(dot(g, g)) for g in gradients) / len(gradients)
    return combined((usual / length, least)) if length > 1e-3 * usual else (0.0, 0.0)


RULES = {"mean": mean, "PCGrad": pcgrad, "MGDA": mgda}


def toy() -> str:
    """HTML: where the arrows start, for the script, and a picture of it."""
    return f'<div class="toy" data-start="{json.dumps(START)}">{picture(START)}</div>\n'


def picture(gradients: tuple[Point, ...]) -> str:
    """The arrows as SVG, for readers without a script; the style sheet of the book colours those of rules."""
    marks = [f'<g fill="currentColor">{arrow(g, f"g{place + 1}", 2)}</g>' for place, g in enumerate(gradients)]
    results = {name: rule(list(gradients)) for name, rule in RULES.items()}
    marks += [f'<g class="rule {name}">{arrow(tip, name, 4)}</g>' for name, tip in results.items()]
    label = "Three gradients as arrows from one point, and their mean, PCGrad and MGDA"
    head = f'<svg viewBox="0 0 {SIZE} {SIZE * 3 // 4}" role="img" aria-label="{label}">'
    return f"{head}{''.join(marks)}</svg>"


def arrow(tip: Point, name: str, width: int) -> str:
    """A line from the origin, with a name at its end."""
    x0, y0 = SIZE // 2, SIZE // 2
    x, y = x0 + UNIT * tip[0], y0 - UNIT * tip[1]
    return (
        f'<line x1="{x0}" y1="{y0}" x2="{x:.1f}" y2="{y:.1f}" stroke="currentColor" stroke-width="{width}"/>'
        f'<text x="{x + 4:.1f}" y="{y - 4:.1f}" font-size="12">{name}</text>'
    )
