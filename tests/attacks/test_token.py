"""Attacks on token signals: published golden values, slow twins in plain Python, and what every attack must satisfy."""

import math
import zlib
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earwitness import attacks
from earwitness.attacks.token import surp
from earwitness.errors import InputError
from earwitness.signals.evaluations import ALL_PASSES, ATTACKS
from earwitness.signals.token import STREAMS, TokenSignals

TARGETS = np.array([[0, 1, 0, 3, 2, 0]])
LOGITS = np.array(
    [[[2, 0, -1, 0.5], [0.2, 1.5, 0.1, -0.4], [-0.3, 0.4, 2.2, 0], [1, 0.9, -0.2, 0.3], [0, -1, 0.5, 1.2],
      [0.7, 0.1, 0.6, -0.8]]]
)  # fmt: skip
NULL = np.array(
    [[[1, 0.2, -0.5, 0.4], [0.3, 0.6, 0, -0.1], [0.1, 0.2, 0.9, 0], [0.6, 0.7, 0, 0.2], [0.1, -0.4, 0.3, 0.5],
      [0.4, 0.2, 0.3, -0.3]]]
)  # fmt: skip
EVERYWHERE = np.ones((1, 6), bool)
GOLDEN = {  # attack -> (conditional, null, contrast), oriented: higher is more member-like
    "loss": (-1.280957, -1.252021, -1.267798),
    "zlib": (-0.055694, -0.054436, -0.055122),
    "hinge": (-0.166667, -0.083333, -0.133333),
    "min_k-0.5": (-1.948911, -1.506644, -1.686806),
    "min_k++-0.5": (-1.137060, -0.514555, -0.721458),
    "min_k++_var-0.5": (-1.734795, -1.583843, -1.4948865),
    "camia_below": (-0.5, -0.5, -0.5),
    "camia_below_z": (-0.5, -0.333333, -0.5),
    "camia_running": (0.666667, 0.5, 0.666667),
    "camia_running_z": (0.333333, 0.333333, 0.5),
    "camia_slope": (0.131496, 0.071945, 0.095291),
}
UNIFORM = np.full((3, 5), 0.2)  # frequencies of a corpus
EVERY = attacks.resolve("all", codebooks=3, context=("frequencies",))
TOKEN = [s for s in EVERY if s.attack.family == "token"]


def run(signals, name, codebooks=3):
    (spec,) = attacks.resolve(name, codebooks=codebooks)
    return attacks.bind(spec, {"frequencies": UNIFORM})(signals)


def make(seed=0, shape=(3, 40, 5), *, bump=0.0, null_bump=0.0, hole=0):
    """Random signals; ``bump`` is added to the true tokens' logits, ``hole`` masks the last frames of each codebook."""
    rng = np.random.default_rng(seed)
    logits, null = rng.normal(size=(2, *shape)).astype(np.float32) * 1.5
    codes = rng.integers(0, shape[-1], shape[:2])
    mask = np.ones(shape[:2], bool)
    mask[:, shape[1] - hole :] = False
    for x, amount in ((logits, bump), (null, null_bump)):
        np.put_along_axis(x, codes[..., None], np.take_along_axis(x, codes[..., None], -1) + amount, -1)
    return TokenSignals.from_logits(logits, codes, mask, null)


@pytest.fixture(scope="module")
def golden():
    return TokenSignals.from_logits(LOGITS, TARGETS, EVERYWHERE, NULL)


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_values(golden, name, stream):
    expected = GOLDEN[name][STREAMS.index(stream)]
    assert run(golden, f"{name}/{stream}") == pytest.approx(expected, abs=1e-6)
    assert run(golden, f"{name}/{stream}/q0") == pytest.approx(expected, abs=1e-6)


def test_golden_log_probabilities(golden):
    expected = [-0.342350, -0.512043, -2.806151, -1.694221, -1.346361, -0.984614]
    assert golden.series("logp", "conditional") == pytest.approx(expected, abs=1e-6)


def test_golden_surp_picks_one_token(golden):
    assert surp(golden, stream="conditional", k=0.5, nats=1.0) == pytest.approx(-2.806151, abs=1e-6)
    assert math.isnan(surp(golden, stream="conditional", k=0.5, nats=0.1)), "no token is that sure"


def test_golden_contrast_readings(golden):
    assert run(golden, "cfg_loglik/contrast") == pytest.approx(-1.280957 + 1.252021, abs=2e-6)
    p = np.exp(golden.series("logp", "conditional")) - np.exp(golden.series("logp", "null"))
    assert run(golden, "cfg_probability/contrast") == pytest.approx(p.mean())


def test_equal_passes_give_exactly_log_v():
    signals = TokenSignals.from_logits(LOGITS, TARGETS, EVERYWHERE, LOGITS)
    assert (signals.streams["contrast"].logp == np.float32(-math.log(4))).all()
    assert run(signals, "loss/contrast") == pytest.approx(-1.386294, abs=1e-6)
    assert run(signals, "cfg_loglik/contrast") == 0
    assert abs(run(signals, "min_k++-0.5/contrast")) < 1e-3  # 0 / 0, held by the floor


# Slow twins: one plain-Python function per attack on lists of (codebook, code, l, mean, variance, rank, rival).


def flat(signals, stream, q):
    held = signals.streams[stream]
    books, frames = signals.codes.shape
    return [
        (
            k,
            int(signals.codes[k, t]),
            *(float(getattr(held, f)[k, t]) for f in ("logp", "mean", "var", "rank", "rival")),
        )
        for t in range(frames)
        for k in range(books)
        if signals.mask[k, t] and q in (None, k)
    ]


def of_book(rows, k):
    return [r for r in rows if r[0] == k]


def logs(rows):
    return [r[2] for r in rows]


def z_var(rows):
    return [float((np.float32(r[2]) - np.float32(r[3])) / (np.float32(r[4]) + np.float32(1e-6))) for r in rows]


def tail(values, k):
    return fmean(sorted(values)[: max(1, math.floor(round(k * len(values), 9)))])


def quantile(values, share):
    values, place = sorted(values), share * (len(values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (place - low)


def books_of(rows):
    return sorted({r[0] for r in rows})


def twin_surp(rows, entropy):
    chosen = []
    for k in books_of(rows):
        book = of_book(rows, k)
        ceiling, line = quantile([-r[3] for r in book], entropy), quantile(logs(book), 0.4)
        chosen += [r[2] for r in book if -r[3] < ceiling and r[2] < line]
    return fmean(chosen) if chosen else math.nan


def firsts(rows):
    seen, new, old = set(), [], []
    for r in rows:
        (old if (r[0], r[1]) in seen else new).append(r)
        seen.add((r[0], r[1]))
    return new, old


def twin_lz(rows, levels):
    values = logs(rows)
    low, high = min(values), max(values)
    text = [min(int((v - low) / ((high - low) or 1) * levels), levels - 1) for v in values]
    words, word = [], ()
    for symbol in text:
        word += (symbol,)
        if word not in words:
            words.append(word)
            word = ()
    return -len(words) / len(text)


def twin_slope(rows):
    n, y = len(rows), logs(rows)
    if n < 2:
        return math.nan
    xm, ym = (n - 1) / 2, fmean(y)
    return -sum((x - xm) * (v - ym) for x, v in enumerate(y)) / sum((x - xm) ** 2 for x in range(n))


def share(flags):
    flags = list(flags)
    return sum(flags) / len(flags) if flags else math.nan


def mean_or_nan(values):
    return fmean(values) if values else math.nan


def twin_running(values):
    return share(v < sum(values[: n + 1]) / (n + 1) for n, v in enumerate(values))


def twin_previous(values):
    return -share(v > sum(values[:n]) / n for n, v in enumerate(values) if n)


TWINS = {
    "loss": lambda r: fmean([fmean(logs(of_book(r, k))) for k in books_of(r)]),
    "zlib": lambda r: fmean(logs(r)) / len(zlib.compress(str([x[1] for x in r]).encode())),
    "hinge": lambda r: fmean([x[2] - x[6] for x in r]),
    "log_rank": lambda r: -fmean([math.log(1 + x[5]) for x in r]),
    "min_k": lambda r, k: tail(logs(r), k),
    "min_k++": lambda r, k: tail([(x[2] - x[3]) / max(math.sqrt(x[4]), 1e-3) for x in r], k),
    "min_k++_var": lambda r, k: tail(z_var(r), k),
    "surp": twin_surp,
    "dc_pdd": lambda r, clip: fmean([min(-math.exp(x[2]) * math.log(0.2), clip) for x in firsts(r)[0]]),
    "camia_below": lambda r: -share(v < fmean(logs(r)) for v in logs(r)),
    "camia_below_z": lambda r: -share(v < fmean(z_var(r)) for v in z_var(r)),
    "camia_running": lambda r: twin_running(logs(r)),
    "camia_running_z": lambda r: twin_running(z_var(r)),
    "camia_slope": twin_slope,
    "camia_previous": lambda r: twin_previous(logs(r)),
    "camia_halves": lambda r: (
        mean_or_nan(logs(r)[: len(r) // 2]) - mean_or_nan(logs(r)[len(r) - len(r) // 2 :]) if len(r) > 1 else math.nan
    ),
    "camia_novelty": lambda r: mean_or_nan(logs(firsts(r)[0])) - mean_or_nan(logs(firsts(r)[1])),
    "camia_confident": lambda r, nats: share(v >= -nats for v in logs(r)),
    "camia_diversity": lambda r: fmean(logs(r)) / (len(firsts(r)[0]) / len(r)),
    "camia_lz": twin_lz,
}


def test_every_attack_on_one_stream_has_a_twin():
    elsewhere = {"sdm", "cfg_loglik", "cfg_probability"}  # checked with the extraction, and above
    assert {s.attack.name for s in TOKEN} - elsewhere == set(TWINS)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), books=st.integers(1, 3), frames=st.integers(1, 14), holes=st.floats(0, 0.9))
def test_attacks_equal_their_slow_twins(seed, books, frames, holes):
    rng = np.random.default_rng(seed)
    logits, null = rng.normal(size=(2, books, frames, 5))
    mask = rng.random((books, frames)) >= holes
    signals = TokenSignals.from_logits(logits, rng.integers(0, 5, (books, frames)), mask, null)
    for spec in attacks.resolve(["all", "*/q*"], codebooks=books, context=("frequencies",)):
        if spec.attack.name not in TWINS:
            continue
        rows = flat(signals, spec.stream, spec.codebook)
        expected = TWINS[spec.attack.name](rows, *spec.options.values()) if rows else math.nan
        found = attacks.bind(spec, {"frequencies": UNIFORM})(signals)
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6, nan_ok=True), spec.id


# What every registered attack must satisfy.


@pytest.mark.parametrize("spec", TOKEN, ids=lambda s: s.id)
def test_contract(spec):
    context = {"frequencies": UNIFORM}
    assert math.isfinite(attacks.bind(spec, context)(make(hole=2)))
    per_codebook = attacks.resolve(f"{spec.id}/q2", codebooks=3)[0]
    assert math.isfinite(attacks.bind(per_codebook, context)(make(hole=2)))
    nothing = make(hole=40)
    assert math.isnan(attacks.bind(spec, context)(nothing)), "no valid token: the attack cannot say"
    assert math.isnan(attacks.bind(per_codebook, context)(nothing))
    bare = TokenSignals(nothing.codes, nothing.mask, {}, {})
    assert math.isnan(attacks.bind(spec, context)(bare)), "a stream that was never extracted"


@pytest.mark.parametrize("name", attacks.REGISTRY)
def test_documentation(name):
    registered = attacks.REGISTRY[name]
    assert registered.formula
    assert registered.source
    assert len(registered.summary) > 20
    assert registered.access in {"none", "grey", "white"}
    assert (registered.access == "none") == (registered.family == "blind")
    assert registered.sign in {"published", "ours", "none"}


RISING = (
    "loss", "zlib", "hinge", "log_rank", "min_k", "min_k++", "min_k++_var", "surp", "dc_pdd", "cfg_loglik",
    "cfg_probability", "camia_confident", "camia_diversity",
)  # fmt: skip


@pytest.mark.parametrize("spec", [s for s in TOKEN if s.attack.name in RISING], ids=lambda s: s.id)
def test_orientation(spec):
    """Making every true token more probable makes the segment more member-like."""
    context = {"frequencies": UNIFORM}
    more = {"null_bump": 1.0} if spec.stream == "null" else {"bump": 1.0}
    low = [attacks.bind(spec, context)(make(seed)) for seed in range(5)]
    high = [attacks.bind(spec, context)(make(seed, **more)) for seed in range(5)]
    assert fmean(high) > fmean(low) or spec.id.startswith("dc_pdd-0.01")
    assert fmean(high) >= fmean(low)


@pytest.mark.parametrize("name", ["camia_slope", "camia_halves", "camia_previous", "camia_running"])
def test_drift_is_oriented_towards_likelihood_that_needs_no_context(name):
    def drifting(slope):
        logits = np.zeros((1, 50, 5))
        logits[0, :, 0] = np.linspace(-slope, slope, 50)
        return TokenSignals.from_logits(logits, np.zeros((1, 50), int), np.ones((1, 50), bool))

    early, late = (run(drifting(slope), f"{name}/conditional") for slope in (-2, 2))
    assert early > late


def test_novelty_is_oriented_towards_codes_known_at_once():
    logits = np.zeros((1, 10, 5))
    codes = np.array([[0, 1, 2, 3, 4] * 2])
    logits[0, range(5), codes[0, :5]] = 3.0
    ones = np.ones((1, 10), bool)
    assert run(TokenSignals.from_logits(logits, codes, ones), "camia_novelty/conditional") > 1


def test_pooled_min_k_is_dominated_by_the_worst_codebook_and_says_so_per_codebook():
    logits = np.zeros((2, 20, 5))
    logits[0, :, 0] = 5.0
    signals = TokenSignals.from_logits(logits, np.zeros((2, 20), int), np.ones((2, 20), bool))
    pooled, first, second = (run(signals, f"min_k-0.2/conditional{q}") for q in ("", "/q0", "/q1"))
    assert pooled == pytest.approx(second)
    assert first > second


def test_shares_of_decimal_k_are_not_cut_short():
    signals = make(shape=(1, 100, 5))
    values = np.sort(signals.series("logp", "conditional"))
    from earwitness.attacks.token import lowest

    assert lowest(signals, "logp", "conditional", None, 0.29) == pytest.approx(values[:29].mean())


def test_the_floor_of_the_standard_deviation_keeps_scores_finite():
    logits = np.zeros((1, 4, 5))
    logits[0, 0, 0] = 60.0  # as good as certain
    logits[0, 1:] = make().series("logp", "null")[:5]
    signals = TokenSignals.from_logits(logits, np.zeros((1, 4), int), np.ones((1, 4), bool))
    assert math.isfinite(run(signals, "min_k++-0.5/conditional"))


def test_token_frequencies():
    signals = [make(seed) for seed in range(3)]
    shares = attacks.token_frequencies(signals, 5)
    counts = np.stack([np.bincount(np.concatenate([s.codes[q] for s in signals]), minlength=5) for q in range(3)])
    assert shares == pytest.approx((counts + 1) / (counts + 1).sum(axis=1, keepdims=True))
    with pytest.raises(InputError, match="beyond the 3 entries"):
        attacks.token_frequencies(signals, 3)
    with pytest.raises(InputError, match="at least one segment"):
        attacks.token_frequencies([], 3)


# The registry and score.


class Held:
    """Signals as the store gives them."""

    def __init__(self, token=(), blind=()):
        self.held = {"token": list(token), "blind": list(blind)}

    def items(self, family):
        for n, signal in enumerate(self.held.get(family, ())):
            role = "member" if n % 2 else "nonmember"
            row = {"track_id": f"t{n}", "segment_id": f"s{n}", "artist": "a", "work": "w", "role": role, "split": ""}
            yield row, signal


def test_score_is_one_tidy_row_per_segment_and_attack():
    signals = Held([make(seed) for seed in range(4)])
    scores = attacks.score(signals, ["loss", "min_k-0.2/null/q1"])
    assert list(scores) == ["track_id", "segment_id", "artist", "work", "role", "attack", "score"]
    assert len(scores) == 4 * (3 + 1)
    row = scores.set_index(["segment_id", "attack"]).loc[("s2", "min_k-0.2/null/q1")]
    assert row["score"] == run(make(2), "min_k-0.2/null/q1")
    assert row["track_id"] == "t2"
    assert row["role"] == "nonmember"
    assert scores["score"].dtype == float


def test_a_score_table_keeps_each_text_once():
    table = attacks.score(Held([make(seed) for seed in range(3)]))
    text = [name for name in table if name != "score"]
    assert len(table) > 300
    assert (table[text].dtypes == "str").all()
    assert table.memory_usage(index=False).sum() == 8 * table.size  # references, and the scores
    assert all(len(set(map(id, table[name]))) <= table[name].nunique() * 3 for name in text)
    wide = table.pivot_table(index="segment_id", columns="attack", values="score").reset_index()
    assert wide["segment_id"].tolist() == ["s0", "s1", "s2"]


def test_score_all_takes_what_the_signals_suffice_for():
    full = set(attacks.score(Held([make()]))["attack"])
    null_only = TokenSignals(make().codes, make().mask, {"null": make().streams["null"]})
    assert {"loss/conditional", "loss/null", "cfg_loglik/contrast"} <= full
    assert {name.split("/")[1] for name in attacks.score(Held([null_only]))["attack"]} == {"null"}
    assert not any(name.startswith("dc_pdd") for name in full)
    with_corpus = attacks.score(Held([make()]), frequencies=UNIFORM)
    assert any(name.startswith("dc_pdd") for name in with_corpus["attack"])


def test_score_order_and_company_do_not_matter():
    signals = [make(seed) for seed in range(5)]
    forward = attacks.score(Held(signals)).pivot_table(index="attack", columns="segment_id", values="score")
    alone = attacks.score(Held(signals[3:4])).set_index("attack")["score"]
    assert (forward["s3"] == alone[forward.index]).all()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("min_q", "no attack is called 'min_q'; did you mean 'min_k'"),
        ("loss/conditonal", "did you mean 'loss/conditional'"),
        ("loss/null/q3", "no attack is called 'loss/null/q3'"),
        ("dc_pdd", "needs 'frequencies'"),
        ("blind", "reads blind signals and none are stored"),
    ],
)
def test_score_names_the_mend(spec, message):
    with pytest.raises(InputError, match=message):
        attacks.score(Held([make()]), spec)


def test_score_refuses_nothing_and_nonsense():
    with pytest.raises(InputError, match="run collect first"):
        attacks.score(Held())
    with pytest.raises(InputError, match="no attack takes 'frequency'; did you mean 'frequencies'"):
        attacks.score(Held([make()]), frequency=UNIFORM)


def test_resolve_names_labels_ids_and_globs():
    def ids(spec, **options):
        return [s.id for s in attacks.resolve(spec, **options)]

    assert ids("loss") == [f"loss/{s}" for s in STREAMS]
    assert ids("min_k-0.05") == [f"min_k-0.05/{s}" for s in STREAMS]
    assert ids(["loss/null/q1", "loss/null"]) == ["loss/null/q1", "loss/null"]
    assert ids("loss/*") == ids("loss")
    assert ids("loss/*/q*", codebooks=2) == [f"loss/{s}/q{q}" for q in (0, 1) for s in STREAMS]
    assert ids(["loss", "loss/*", attacks.resolve("loss")[0]]) == ids("loss")
    assert not any("/q" in i for i in ids("all"))
    assert len(set(ids(["all", "*/q*"]))) == len(ids(["all", "*/q*"]))


def test_names_are_taken_once():
    with pytest.raises(InputError, match="'loss' is registered already"):
        attacks.attack("loss", formula="l", source="us")
    with pytest.raises(InputError, match="unknown pass 'referenc'"):
        attacks.Needs("new", "token", passes=("referenc",))
    with pytest.raises(InputError, match="'los' is not in ATTACKS .signals/evaluations.py.; did you mean 'loss'"):
        attacks.attack("los", formula="l", source="us")
    with pytest.raises(InputError, match="'mine' was given the needs of 'yours'"):
        attacks.attack("mine", formula="l", source="us", needs=attacks.Needs("yours", "token"))
    attacks.attack("mine", formula="l", source="us", needs=attacks.Needs("mine", "token"))
    assert "mine" not in ATTACKS, "nothing is listed before there is a function"


def test_cost_counts_shared_passes_once():
    assert attacks.cost(attacks.resolve("loss/conditional")) == {"conditional": 1}
    assert attacks.cost(attacks.resolve(["loss", "min_k"])) == {"conditional": 1, "null": 1}
    assert attacks.cost(attacks.resolve("blind")) == {"blind": 0}


def test_catalogue_lists_every_attack():
    table = attacks.catalogue().set_index("attack")
    assert list(table.index) == list(ATTACKS)
    assert set(attacks.REGISTRY) == set(ATTACKS), "every row of the table has its function"
    assert table.loc["cfg_loglik", "nfe"] == 2
    assert table.loc["blind", "nfe"] == 0
    assert table.loc["gradient_norm", "nfe"] == 1 + 3
    assert table["ids"].sum() == len(attacks.resolve("all", passes=ALL_PASSES, context=("frequencies",)))
