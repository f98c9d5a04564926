"""Writes ranking_cases.json: ranking expressions and what Vespa's own evaluator gives for them.

The expressions are ours: every function over every kind of tensor, then random nestings with a fixed seed. The answers
are those of Vespa's published Java artifacts (com.yahoo.vespa:searchlib and what it needs; any Maven project that
depends on it prints its class path with `mvn dependency:build-classpath`):

    javac -cp "$CLASSPATH" -d /tmp/rank tests/local_vespa/data/RankBatch.java
    PYTHONPATH=. python tests/local_vespa/data/make_ranking_cases.py java -cp "/tmp/rank:$CLASSPATH" RankBatch

An expression that Vespa's evaluator refuses is left out; the number of those is printed.
"""

import json
import random
import subprocess
import sys
from pathlib import Path

from local_vespa.expressions import RankingError, infer_type, parse_expression
from local_vespa.tensors import TensorType

# ruff: noqa: E501  a table of expressions

INPUTS = {
    "s": "tensor():{0.75}",
    "t": "tensor():{-2.0}",
    "d": "tensor(x[3]):[1.5,-2.0,0.25]",
    "e": "tensor<float>(x[3]):[0.5,2.0,-1.0]",
    "f": "tensor(y[2]):[3.0,-0.5]",
    "g": "tensor<float>(x[3],y[2]):[[1,2],[3,4],[-5,6]]",
    "b": "tensor<int8>(x[3]):[3,-7,100]",
    "h": "tensor<bfloat16>(x[3]):[0.5,-1.5,3.0]",
    "m": "tensor(k{}):{a:1.0,b:-2.5,c:0.5}",
    "n": "tensor(k{}):{b:4.0,c:2.0,d:-1.0}",
    "p": "tensor<float>(k{},x[3]):{a:[1,2,3],b:[-1,0.5,2]}",
    "q": "tensor<float>(k{},x[3]):{b:[2,2,2],c:[1,-1,0]}",
    "w": "tensor(k{},l{}):{{k:a,l:u}:1.0,{k:a,l:v}:2.0,{k:c,l:v}:-3.0}",
    "z": "tensor(k{}):{}",
}
UNARY = [
    "abs",
    "acos",
    "asin",
    "atan",
    "ceil",
    "cos",
    "cosh",
    "elu",
    "erf",
    "exp",
    "fabs",
    "floor",
    "isNan",
    "log",
    "log10",
    "relu",
    "sigmoid",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "tan",
    "tanh",
]
OPERATORS = ["+", "-", "*", "/", "%", "^", "==", "!=", "<", "<=", ">", ">=", "&&", "||", "~="]
FUNCTIONS = ["max", "min", "pow", "fmod", "atan2", "ldexp", "bit", "hamming"]
AGGREGATORS = ["avg", "count", "max", "median", "min", "prod", "sum"]
PAIRS = ["st", "es", "sm", "de", "eb", "gd", "gf", "df", "mn", "zm", "pe", "pq", "pm", "wm", "ef", "mf", "hb"]
OTHER = [
    "if (s > 0, 1, 2)", "if (t > 0, d, d * 2)", "if (s in [0.75, 3], 5, 6)", "s in [1, 2]", "!s", "!(s > 1)", "-d", "-m", "!m",
    "if (s > 0.5, m, n)", "s > 0 && t < 0 || s == 3", "2 + 3 * 4 - 6 / 4", "2 ^ 3 ^ 0.5", "-s ^ 2", "1 / 0",
    "0 / 0", "isNan(0 / 0)", "log(-1)", "5 % 0", "10 - 3 - 2", "true + false",
    "map(d, f(a)(a * a + 1))", "map(m, f(a)(if (a > 0, a, 0 - a)))", "map(p, f(a)(max(a, 1)))", "map(s, f(a)(a + 1))",
    "join(d, e, f(a,b)(a - b * 2))", "join(m, n, f(a,b)(max(a, b)))", "join(p, e, f(a,b)(if (a > b, a, b)))",
    "join(d, s, f(a,b)(a ^ 2 + b))", "rename(d, x, z)", "rename(g, x, z)", "rename(g, (x, y), (y, x))", "rename(p, k, z)",
    "rename(p, (k, x), (x, k))", "rename(w, (k, l), (l, k))", "rename(m, k, a)",
    "concat(d, e, x)", "concat(s, t, x)", "concat(d, s, x)", "concat(s, d, x)", "concat(d, f, x)", "concat(d, e, z)", "concat(g, d, x)",
    "concat(p, e, x)", "concat(p, q, x)", "concat(f, d, y)", "concat(m, d, x)",
    "d{x:1}", "d[1]", "g{x:1}", "g{x:1,y:0}", "m{a}", "m{k:b}", "p{a}", "p{k:b,x:1}", "p{k:a}", "w{k:a}", "w{k:a,l:v}", "m{d}", "p{x:1}",
    "d{x:(1+1)}", "d[s * 2]", "m{k:nothere}",
    "tensor(x[3])(x)", "tensor(x[3],y[2])(x * 10 + y)", "tensor<float>(i[4])(i ^ 2)", "tensor(x[2])(d{x:(x+1)})", "tensor(x[3])(x == 1)",
    "tensor(x[2])(s + x)", "tensor(x[3]):[1,2,3]", "tensor(k{}):{a:1,b:2}", "tensor<float>(k{},x[2]):{a:[1,2],b:[3,4]}",
    "tensor(x{}):{ a: s, b: t * 2 }", "tensor(x[2]):[s, t]", "tensor(x{},y{}):{{x:a,y:b}:s + 1}",
    "l1_normalize(d, x)", "l2_normalize(d, x)", "l2_normalize(e, x)", "l1_normalize(m, k)", "l2_normalize(p, x)", "softmax(d, x)",
    "softmax(m, k)", "softmax(g, x)", "softmax(p, x)", "argmax(d, x)", "argmin(d, x)", "argmax(m, k)", "argmin(m, k)", "argmax(g, x)",
    "argmin(g, y)", "argmax(d)", "matmul(g, f, y)", "matmul(d, e, x)", "matmul(g, d, x)", "xw_plus_b(g, f, d, y)", "xw_plus_b(d, g, f, x)",
    "cosine_similarity(d, e, x)", "cosine_similarity(p, e, x)", "cosine_similarity(m, n, k)", "euclidean_distance(d, e, x)",
    "euclidean_distance(p, e, x)", "diag(x[2],y[2])", "range(x[4])", "expand(d, z)", "expand(s, z)", "expand(m, z)",
    "cell_cast(d, float)", "cell_cast(d, int8)", "cell_cast(d, bfloat16)", "cell_cast(e, double)", "cell_cast(p, int8)", "cell_cast(m, float)",
    "cell_order(d, max)", "cell_order(d, min)", "top(2, m)", "top(1, m)", "merge(m, n, f(a,b)(a + b))", "merge(m, n, f(a,b)(b))",
    "merge(d, e, f(a,b)(a * b))", "merge(m, z, f(a,b)(a))", "merge(z, z, f(a,b)(a))", "merge(p, q, f(a,b)(a - b))", "merge(w, w, f(a,b)(a + b))",
    "unpack_bits(b)", "unpack_bits(b, float)", "unpack_bits(b, int8, big)", "unpack_bits(b, float, little)",
    "hamming(b, b)", "sum(hamming(b, b * 0))",
    "reduce(d * e, sum)", "reduce(d * e, sum, x)", "sum(d * e)", "sum(p * e, x)", "reduce(sum(p * e, x), max, k)",
    "sum(exp(5 * m) * m) / max(0.000001, sum(exp(5 * m)))", "max(s, t)", "cell_order(e, max)", "cell_order(m, max)", "cell_order(w, min)", "top(2, w)", "avg(d)", "prod(m)", "sum(z)",
    "reduce(z, max)", "reduce(z * m, sum, k)", "max(0, cosine_similarity(d, e, x))", "sum(l2_normalize(d, x) * e)",
    "map_subspaces(p, f(a)(a * 2))", "filter_subspaces(m, f(a)(a > 0))", "filter_subspaces(p, f(a)(sum(a) > 2))",
    "map_subspaces(p, f(a)(sum(a)))", "map_subspaces(m, f(a)(a * 2))", "map_subspaces(p, f(a)(concat(a, a, x)))", "map_subspaces(d, f(a)(a + 1))",
    "p{k:a,x:(0+1)}", "m{k:(1)}", "g{x:(s*2),y:1}", "tensor(x[2],y[2])(g{x:(y+1),y:(x)})", "g[1][0]", "concat(s, t, x){x:1}",
]  # fmt: skip


def enumerated() -> list[str]:
    """Every function over every kind of tensor."""
    found = [f"{name}({value})" for name in UNARY for value in "stemp"]
    found += [f"{a} {operator} {b}" for operator in OPERATORS for a, b in PAIRS]
    found += [f"{name}({a}, {b})" for name in FUNCTIONS for a, b in PAIRS]
    for aggregator in AGGREGATORS:
        for value, dimensions in {"d": "x", "b": "x", "g": "xy", "m": "k", "p": "kx", "w": "kl", "z": "k"}.items():
            found.append(f"reduce({value}, {aggregator})")
            found += [f"reduce({value}, {aggregator}, {dimension})" for dimension in dimensions]
        found.append(f"reduce(g, {aggregator}, x, y)")
    return found + OTHER


DENSE, MAPPED = ["s", "t", "d", "e", "f", "g", "b", "h"], ["s", "t", "d", "e", "m", "n", "p", "q", "z"]


def nested(random_: random.Random, depth: int, inputs: list[str]) -> str:
    """A random expression over some of the inputs. Dense tensors of two dimensions and mapped ones do not meet: Vespa's
    evaluator in Java, not that of its content node, gives wrong cells where they are joined. Nor is a number the left side
    of an operator: there it takes the sides the other way round."""
    if depth == 0:
        return random_.choice(inputs)
    a, b = nested(random_, depth - 1, inputs), nested(random_, depth - 1, inputs)
    choices = [
        f"({a} {random_.choice(['+', '-', '*', '/', '<', '>=', '==', '&&', '||'])} {b})",
        f"({a} {random_.choice(['+', '-', '*'])} {b})",
        f"{random_.choice(['max', 'min', 'atan2', 'fmod'])}({a}, {b})",
        f"{random_.choice(['abs', 'tanh', 'sigmoid', 'floor', 'relu', 'elu', 'sin'])}({a})",
        f"reduce({a}, {random_.choice(AGGREGATORS)})",
        f"reduce({a}, {random_.choice(AGGREGATORS)}, {random_.choice('xyk')})",
        f"if (sum({a}) > 0, {b}, 2 * {b})",
        f"map({a}, f(i)(i * 2 + 1))",
        f"join({a}, {b}, f(i,j)(i + j * i))",
        f"merge({a}, {b}, f(i,j)(i - j))",
        f"l2_normalize({a}, {random_.choice('xk')})",
        f"-{a}",
    ]
    if inputs is DENSE:
        choices += [f"rename({a}, {random_.choice('xy')}, v)", f"concat({a}, {b}, {random_.choice('xy')})"]
    return random_.choice(choices)


def well_typed(text: str) -> bool:
    """Whether the deploy would let it pass: Vespa's evaluator in Java is lenient about types, its content node is not."""
    kinds = {name: TensorType.parse(tensor.split(":")[0]) for name, tensor in INPUTS.items()}
    try:
        infer_type(parse_expression(text), lambda reference: kinds[reference.name])
    except RankingError:
        return False
    return True


def main(command: list[str]) -> None:
    random_ = random.Random(7)
    expressions = enumerated()
    made = [nested(random_, random_.choice([2, 2, 3]), random_.choice([DENSE, MAPPED])) for _ in range(1200)]
    expressions += sorted({text for text in made if well_typed(text)})
    lines = [f"{name}\t{tensor}" for name, tensor in INPUTS.items()] + [f"\t{text}" for text in expressions]
    run = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True, check=True)
    answers = run.stdout.splitlines()
    assert len(answers) == len(expressions), (len(answers), len(expressions), run.stderr[-2000:])
    cases, refused = [], 0
    for text, answer in zip(expressions, answers, strict=True):
        if answer.startswith("ERROR"):
            refused += 1
            print(f"refused: {text}: {answer[6:120]}", file=sys.stderr)
        else:
            cases.append({"expression": text, "answer": answer})
    out = Path(__file__).parent / "ranking_cases.json"
    body = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    out.write_text(f'{{"inputs": {json.dumps(INPUTS)},\n"cases": [\n{body}\n]}}\n', encoding="utf-8")
    print(f"{len(cases)} cases, {refused} refused by Vespa's evaluator")


if __name__ == "__main__":
    main(sys.argv[1:])
