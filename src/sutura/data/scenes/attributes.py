"""The words of the built-in world: what an object can be, and which pairs are held out."""

from __future__ import annotations

SIZES = ("small", "large")
COLOURS = ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow")
MATERIALS = ("rubber", "metal")
SHAPES = ("cube", "sphere", "cylinder")

#: Attribute name -> its values, in the order in which a phrase names them ("small red metal cube").
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "size": SIZES,
    "colour": COLOURS,
    "material": MATERIALS,
    "shape": SHAPES,
}
#: Value -> its attribute; no word belongs to two attributes.
ATTRIBUTE_OF: dict[str, str] = {value: name for name, values in ATTRIBUTES.items() for value in values}

#: (shape, colour) pairs that only the compositional split shows. Four of twenty-four, in four colours,
#: so that every shape keeps at least six colours and every colour two shapes elsewhere.
HELD_OUT: frozenset[tuple[str, str]] = frozenset(
    {("cube", "purple"), ("cube", "yellow"), ("sphere", "brown"), ("cylinder", "cyan")}
)
#: Shape -> the colours it may have outside the compositional split.
ALLOWED_COLOURS: dict[str, tuple[str, ...]] = {
    shape: tuple(colour for colour in COLOURS if (shape, colour) not in HELD_OUT) for shape in SHAPES
}

#: Radius in world units; the field is about 5.6 units wide.
RADIUS: dict[str, float] = {"small": 0.46, "large": 0.82}
#: Half-extents as a share of the radius: the cube's half side, the cylinder's radius and half height, the
#: sphere's radius. Chosen so that the three shapes cover about the same area of the picture.
CUBE_HALF = 0.76
CYLINDER_HALF = 0.80
SPHERE_RADIUS = 0.96
#: Height of an object's centre above the ground, as a share of its radius.
CENTRE_HEIGHT: dict[str, float] = {"cube": CUBE_HALF, "sphere": SPHERE_RADIUS, "cylinder": CYLINDER_HALF}
#: Radius of a sphere about the centre that holds the object, and of one inside it, as shares of its radius.
OUTER: dict[str, float] = {
    "cube": CUBE_HALF * 3**0.5,
    "sphere": SPHERE_RADIUS,
    "cylinder": CYLINDER_HALF * 2**0.5,
}
INNER: dict[str, float] = {"cube": CUBE_HALF, "sphere": SPHERE_RADIUS, "cylinder": CYLINDER_HALF}

#: The description's coarse grid: columns run left to right, rows near to far.
GRID = 8
