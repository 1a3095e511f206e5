"""Standard test functions of optimisation. Each takes points ``[..., d]`` and returns values ``[...]``.

Sources that several share: M. Jamil & X.-S. Yang, "A literature survey of benchmark functions for global
optimization problems", arXiv 1308.4008 (2013); S. Surjanovic & D. Bingham, "Virtual library of simulation
experiments", www.sfu.ca/~ssurjano. Minima that have no short form were computed to 30 digits.
"""

from __future__ import annotations

import math

import torch

from gradprobe.problems.functions import register


@register(
    "beale",
    summary="a flat curved valley between steep walls (Beale 1958)",
    domain=(-4.5, 4.5),
    minima=((3.0, 0.5),),
    value=0.0,
    local_minima=(),
    start=(-3.0, 2.0),
    source="E. M. L. Beale, Princeton STRG Tech. Rep. 25 (1958); Jamil & Yang, arXiv 1308.4008",
)
def beale(p: torch.Tensor) -> torch.Tensor:
    """Beale's function: ``(1.5 - x + xy)^2 + (2.25 - x + xy^2)^2 + (2.625 - x + xy^3)^2``.

    Minimum 0 at (3, 0.5), the only one inside the domain; saddles at (0, 1) and (0.10, -2.64). Hard: gradients
    of 10^5 in the corners and of less than 1 along the valleys. One of these has no end: towards x -> -inf,
    y -> 1 the function falls to 0.4520, and from the start (-3, 2) the path of steepest descent follows it out
    of the domain.
    """
    x, y = p.unbind(-1)
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


@register(
    "rosenbrock",
    summary="a long curved valley with a nearly flat floor (Rosenbrock 1960); any number of variables",
    any_dims=True,
    domain=(-2.048, 2.048),
    minima=((1.0, 1.0),),
    value=0.0,
    local_minima=(),
    start=(-1.2, 1.0),
    source="H. H. Rosenbrock, The Computer Journal 3(3) (1960) 175-184",
)
def rosenbrock(p: torch.Tensor) -> torch.Tensor:
    """Rosenbrock's valley: ``sum_i 100 (x_{i+1} - x_i^2)^2 + (1 - x_i)^2``, two variables or more.

    Minimum 0 at (1, ..., 1), the only one for 2 or 3 variables; for 4 to 7 there is a second, with x_1 < 0 (Kok
    & Sandrock 2009). Hard: the valley is found at once and then followed slowly; at the minimum the Hessian has
    condition 2508.
    """
    return (100 * (p[..., 1:] - p[..., :-1] ** 2) ** 2 + (1 - p[..., :-1]) ** 2).sum(-1)


@register(
    "himmelblau",
    summary="four minima of the same depth (Himmelblau 1972)",
    domain=(-5.0, 5.0),
    minima=(
        (3.0, 2.0),
        (-2.8051180869527449, 3.1313125182505730),
        (-3.7793102533777469, -3.2831859912861694),
        (3.5844283403304917, -1.8481265269644036),
    ),
    value=0.0,
    local_minima=(),
    start=(0.0, 0.0),
    source="D. M. Himmelblau, Applied Nonlinear Programming, McGraw-Hill (1972); Jamil & Yang, arXiv 1308.4008",
)
def himmelblau(p: torch.Tensor) -> torch.Tensor:
    """Himmelblau's function: ``(x^2 + y - 11)^2 + (x + y^2 - 7)^2``.

    Four minima of value 0 around a hill at (-0.27, -0.92), and no others. Hard: which one is reached is decided
    near the hill, where noise in the direction counts most.
    """
    x, y = p.unbind(-1)
    return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2


@register(
    "booth",
    summary="a convex quadratic, condition 9 (Jamil & Yang 2013)",
    domain=(-10.0, 10.0),
    minima=((1.0, 3.0),),
    value=0.0,
    local_minima=(),
    start=(-6.0, -4.0),
    source="Jamil & Yang, arXiv 1308.4008; Surjanovic & Bingham",
)
def booth(p: torch.Tensor) -> torch.Tensor:
    """Booth's function: ``(x + 2y - 7)^2 + (2x + y - 5)^2``.

    Minimum 0 at (1, 3), the only one. Easy: a quadratic whose Hessian has eigenvalues 2 and 18 along the
    diagonals; the one to try first.
    """
    x, y = p.unbind(-1)
    return (x + 2 * y - 7) ** 2 + (2 * x + y - 5) ** 2


@register(
    "ackley",
    summary="a funnel covered with small pits (Ackley 1987); any number of variables",
    any_dims=True,
    domain=(-5.0, 5.0),
    minima=((0.0, 0.0),),
    value=0.0,
    start=(-3.3, 2.7),
    source="D. H. Ackley, A Connectionist Machine for Genetic Hillclimbing, Kluwer (1987); Surjanovic & Bingham",
)
def ackley(p: torch.Tensor) -> torch.Tensor:
    """Ackley's function: ``20 + e - 20 exp(-0.2 sqrt(mean x^2)) - exp(mean cos 2 pi x)``.

    Minimum 0 at the origin, a cusp: there is no gradient there, and backprop gives the subgradient 0. Local
    minima near all other points of whole numbers: too many to list. Hard: a descent stays in the pit where it
    starts unless noise of about its width smooths it away. Often given on [-32.768, 32.768].
    """
    radius = torch.linalg.vector_norm(p, dim=-1) / math.sqrt(p.shape[-1])
    waves = torch.cos(2 * math.pi * p).mean(-1)
    return 20 + math.e - 20 * torch.exp(-0.2 * radius) - torch.exp(waves)


@register(
    "rastrigin",
    summary="a bowl covered with deep pits (Rastrigin 1974); any number of variables",
    any_dims=True,
    domain=(-5.12, 5.12),
    minima=((0.0, 0.0),),
    value=0.0,
    start=(-3.3, 2.6),
    source="L. A. Rastrigin, Systems of Extremal Control, Nauka (1974); Surjanovic & Bingham",
)
def rastrigin(p: torch.Tensor) -> torch.Tensor:
    """Rastrigin's function: ``sum_i 10 + x_i^2 - 10 cos(2 pi x_i)``.

    Minimum 0 at the origin; a local minimum near every other point of whole numbers, 120 of them inside the
    domain: too many to list. Hard: a descent stays in the pit where it starts.
    """
    return (10 + p**2 - 10 * torch.cos(2 * math.pi * p)).sum(-1)


@register(
    "goldstein-price",
    summary="values over five powers of ten, four minima (Goldstein & Price 1971)",
    domain=(-2.0, 2.0),
    minima=((0.0, -1.0),),
    value=3.0,
    local_minima=((-0.6, -0.4), (1.8, 0.2), (1.2, 0.8)),
    start=(-0.5, -1.5),
    source="A. A. Goldstein & J. F. Price, Mathematics of Computation 25(115) (1971) 569-574",
)
def goldstein_price(p: torch.Tensor) -> torch.Tensor:
    """Goldstein and Price's function of degree 8, a product of two factors.

    ``(1 + (x+y+1)^2 (19 - 14x + 3x^2 - 14y + 6xy + 3y^2))
    (30 + (2x-3y)^2 (18 - 32x + 12x^2 + 48y - 36xy + 27y^2))``. Minimum 3 at (0, -1); local minima 30 at
    (-0.6, -0.4), 84 at (1.8, 0.2) and 840 at (1.2, 0.8). Hard: values and gradients of 10^6 at the edge of the
    domain, so that no step size suits both edge and minimum.
    """
    x, y = p.unbind(-1)
    first = 1 + (x + y + 1) ** 2 * (19 - 14 * x + 3 * x**2 - 14 * y + 6 * x * y + 3 * y**2)
    second = 30 + (2 * x - 3 * y) ** 2 * (18 - 32 * x + 12 * x**2 + 48 * y - 36 * x * y + 27 * y**2)
    return first * second


@register(
    "styblinski-tang",
    summary="two minima along each axis, one deeper (Styblinski & Tang 1990); any number of variables",
    any_dims=True,
    domain=(-5.0, 5.0),
    minima=((-2.9035340277711771, -2.9035340277711771),),
    value=-78.332331407542831,
    local_minima=(
        (-2.9035340277711771, 2.7468027709908370),
        (2.7468027709908370, -2.9035340277711771),
        (2.7468027709908370, 2.7468027709908370),
    ),
    start=(0.0, 4.0),
    source="M. A. Styblinski & T.-S. Tang, Neural Networks 3(4) (1990) 467-483; Jamil & Yang, arXiv 1308.4008",
)
def styblinski_tang(p: torch.Tensor) -> torch.Tensor:
    """Styblinski and Tang's function: ``1/2 sum_i x_i^4 - 16 x_i^2 + 5 x_i``.

    Minimum -39.166 d at -2.9035 in each variable; 2^d - 1 local minima with 2.7468 in some variables. Hard:
    each variable has a shallower minimum of its own, with a barrier at 0.157.
    """
    return (p**4 - 16 * p**2 + 5 * p).sum(-1) / 2


@register(
    "mccormick",
    summary="a wavy trough with a second, higher minimum (Jamil & Yang 2013)",
    domain=((-1.5, 4.0), (-3.0, 4.0)),
    minima=((-0.54719755119659775, -1.5471975511965978),),
    value=-1.9132229549810364,
    local_minima=((2.5943951023931955, 1.5943951023931955),),
    start=(1.8, -2.0),
    source="Jamil & Yang, arXiv 1308.4008; Surjanovic & Bingham",
)
def mccormick(p: torch.Tensor) -> torch.Tensor:
    """McCormick's function: ``sin(x + y) + (x - y)^2 - 1.5 x + 2.5 y + 1``.

    Minimum -1.9132 at (1/2 - pi/3, -1/2 - pi/3); a local minimum 1.2284 one wave further, at (2.594, 1.594).
    Without the domain it falls for ever, wave by wave. Hard: the trough is easy, the right wave is not.
    """
    x, y = p.unbind(-1)
    return torch.sin(x + y) + (x - y) ** 2 - 1.5 * x + 2.5 * y + 1


@register(
    "six-hump-camel",
    summary="two equal minima and four local ones (Dixon & Szego 1978)",
    domain=((-3.0, 3.0), (-2.0, 2.0)),
    minima=(
        (0.089842013100318062, -0.71265640302073963),
        (-0.089842013100318062, 0.71265640302073963),
    ),
    value=-1.0316284534898774,
    local_minima=(
        (1.7036067149699808, -0.79608356867262512),
        (-1.7036067149699808, 0.79608356867262512),
        (1.6071047529201972, 0.56865145488413137),
        (-1.6071047529201972, -0.56865145488413137),
    ),
    start=(-1.0, -1.4),
    source="L. C. W. Dixon & G. P. Szego, Towards Global Optimisation 2 (1978); Surjanovic & Bingham",
)
def six_hump_camel(p: torch.Tensor) -> torch.Tensor:
    """The six-hump camel back: ``(4 - 2.1 x^2 + x^4/3) x^2 + xy + (4 y^2 - 4) y^2``.

    Minimum -1.0316 at (0.0898, -0.7127) and its mirror image; local minima -0.2155 at (1.7036, -0.7961) and
    2.1043 at (1.6071, 0.5687), each with its mirror image. Hard: narrow passes between the six of them.
    """
    x, y = p.unbind(-1)
    return (4 - 2.1 * x**2 + x**4 / 3) * x**2 + x * y + (4 * y**2 - 4) * y**2


@register(
    "easom",
    summary="a narrow pit in a plain (Easom 1990)",
    domain=(-1.0, 7.0),
    minima=((3.1415926535897932, 3.1415926535897932),),
    value=-1.0,
    local_minima=(
        (1.3049954504376675, 1.3049954504376675),
        (1.3049954504376675, 4.9781898567419190),
        (4.9781898567419190, 1.3049954504376675),
        (4.9781898567419190, 4.9781898567419190),
    ),
    start=(2.0, 1.8),
    source="E. E. Easom, M. Eng. thesis, University of Louisville (1990); Surjanovic & Bingham",
)
def easom(p: torch.Tensor) -> torch.Tensor:
    """Easom's function: ``-cos(x) cos(y) exp(-(x - pi)^2 - (y - pi)^2)``.

    Minimum -1 at (pi, pi); four local minima of -8.1e-5 beside it, and more that are shallower further out.
    Hard: outside the pit the gradient vanishes. Usually given on [-100, 100], most of which is 0 to double
    precision; the domain here is what can be seen.
    """
    x, y = p.unbind(-1)
    return -torch.cos(x) * torch.cos(y) * torch.exp(-((x - math.pi) ** 2) - (y - math.pi) ** 2)


@register(
    "ill-conditioned",
    summary="a quadratic with condition 1000 whose axes are rotated",
    domain=(-5.0, 5.0),
    minima=((0.0, 0.0),),
    value=0.0,
    local_minima=(),
    start=(-4.0, -1.0),
    source="gradprobe",
)
def ill_conditioned(p: torch.Tensor) -> torch.Tensor:
    """A rotated quadratic: ``(u^2 + 1000 v^2) / 2`` with ``u = (4x + 3y)/5`` and ``v = (4y - 3x)/5``.

    Minimum 0 at the origin, the only one. Its Hessian has eigenvalues 1 and 1000, condition 1000, and its
    eigenvectors are turned by 37 degrees. Hard: a step must be shorter than 2/1000 and has 1 to go down along u.
    What looks at each coordinate on its own (signs, Adam) is misled by the rotation.
    """
    x, y = p.unbind(-1)
    u, v = (4 * x + 3 * y) / 5, (4 * y - 3 * x) / 5
    return (u**2 + 1000 * v**2) / 2


@register(
    "steps",
    summary="a staircase without a gradient (Yao, Liu & Lin 1999); any number of variables",
    any_dims=True,
    domain=(-5.12, 5.12),
    minima=((0.0, 0.0),),
    value=0.0,
    start=(-3.3, 2.2),
    source="X. Yao, Y. Liu & G. Lin, IEEE Trans. Evol. Comput. 3(2) (1999) 82-102, f6; De Jong (1975) for the domain",
)
def steps(p: torch.Tensor) -> torch.Tensor:
    """A staircase: ``sum_i floor(x_i + 1/2)^2``, constant on squares of width 1.

    Minimum 0 on the plateau [-0.5, 0.5) in each variable, whose centre is given. The gradient is 0 wherever it
    exists, so that backprop never moves. Hard: noise must reach the next step to see any difference: sigma must
    be about the width of a step.
    """
    return (torch.floor(p + 0.5) ** 2).sum(-1)
