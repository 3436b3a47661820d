"""Zoo: every model of every run that shares one protocol, ranked, with cost and claims."""

import streamlit as st

from core.metrics.classification import MetricsError
from core.reporting.leaderboard import describe as leaderboard_describe
from core.reporting.leaderboard import ranking as zoo
from core.reporting.leaderboard.ranking import METRICS, Protocol, ZooError
from core.runs.artifacts import ArtifactError
from dashboard.charts import leaderboard as leaderboard_charts
from dashboard.components import leaderboard as leaderboard_parts
from dashboard.components.choice import choose, kept_choice
from dashboard.components.markdown import escape, escape_sentence
from dashboard.components.page import empty_state, page_frame, show_chart
from dashboard.data import leaderboard as leaderboard_data
from dashboard.tables import metrics as metric_tables

PROTOCOL_KEY, METRIC_KEY, COST_KEY = "zoo_protocol", "zoo_metric", "zoo_cost"
COVERS = (
    "This page covers every run that was split in the same way, whatever run and models are chosen "
    "in the sidebar."
)


def choose_protocol(protocols: list[Protocol], run_name: str) -> Protocol:
    """The protocol of the sidebar's run to begin with, where it holds any of the zoo."""
    by_key = {protocol.key: protocol for protocol in protocols}
    if len(by_key) == 1:
        return protocols[0]
    if st.session_state.get(PROTOCOL_KEY) not in by_key:
        own = [p for p in protocols if p.has_zoo and any(r.name == run_name for r in p.runs)]
        st.session_state[PROTOCOL_KEY] = (own or protocols)[0].key
    key = st.selectbox(
        "Data set and task",
        list(by_key),
        key=PROTOCOL_KEY,
        format_func=lambda key: protocol_label(by_key[key]),
        persist_state="session",
    )
    return by_key[key]


def protocol_label(protocol: Protocol) -> str:
    """A protocol in the box: data set, classes, models and runs."""
    name = str(protocol.first.info["dataset"]["name"])
    n, classes = len(protocol.entries), " / ".join(protocol.class_names)
    marked = f" · {protocol.leaks.split(':')[0]}" if protocol.leaks else ""
    models = f"{n} model{'s' if n != 1 else ''}"
    return f"{name} · {classes} · {models} in {', '.join(r.name for r in protocol.runs)}{marked}"


selection = page_frame("All models", ":material/format_list_numbered:")
found = leaderboard_data.load_protocols()
if not any(protocol.has_zoo for protocol in found.protocols):
    for name, problem in found.problems.items():
        st.error(f"**{escape(name)}**: {escape_sentence(problem)}", icon=":material/error:")
    empty_state(
        "No run here holds the networks of the field's notebooks, so there is nothing to rank.",
        "make train-zoo",
    )
protocol = choose_protocol(found.protocols, selection.run.name)
try:
    whole = leaderboard_data.load_zoo(protocol)
except (ArtifactError, MetricsError, ZooError) as error:
    empty_state(escape_sentence(str(error)))

metric = kept_choice(METRIC_KEY, METRICS)
ranking = whole.rankings[metric]
n_text = f"n = {protocol.n['test']:,} test images of {protocol.n_patients:,} patients"
st.markdown(f"#### {escape(leaderboard_describe.headline(protocol, ranking, metric))}")
baselines_markdown = leaderboard_describe.baselines_text(protocol, ranking)
if baselines_markdown:
    st.markdown(f"**Floors.** {escape(baselines_markdown)}")
st.markdown(f":gray[{escape(leaderboard_describe.protocol_text(protocol))}. {COVERS}]")
leaderboard_parts.show_caveats(protocol)
for name, problem in found.problems.items():
    st.error(
        f"Run **{escape(name)}** is left out: {escape_sentence(problem)}", icon=":material/error:"
    )
if protocol.leaks:
    st.warning(
        f"{escape(protocol.leaks)}. These figures stand apart from those of clean runs.",
        icon=":material/warning:",
    )

choose("Ranked by", METRICS, METRIC_KEY, METRICS)
left, right = st.columns([3, 2], gap="medium")
baselines = metric_tables.baseline_rows(zoo.protocol_baselines(protocol)).dropna(subset=["value"])
with left:
    show_chart(
        leaderboard_charts.plot_ranking(ranking, metric, n_text=n_text, baselines=baselines),
        key="zoo_ranking",
    )
with right:
    cost = kept_choice(COST_KEY, leaderboard_charts.COSTS)
    show_chart(
        leaderboard_charts.plot_cost(ranking, metric, cost, n_text=n_text), key="zoo_cost_chart"
    )
    names = {key: name for key, (name, *_) in leaderboard_charts.COSTS.items()}
    choose("Cost", names, COST_KEY, names)
    if not (baselines["metric"] == metric).any():
        st.caption(f"Floors are measured on accuracy and macro-F1, not on {METRICS[metric]}.")
leaderboard_parts.show_ranking(protocol, ranking, metric)
leaderboard_parts.show_claims(whole.claims)
clean = [run for other in found.protocols if not other.leaks for run in other.runs]
leaderboard_parts.show_crossing(clean or list(protocol.runs), ranking, metric)
leaderboard_parts.show_curves(protocol, ranking, whole.histories)
leaderboard_parts.explain()
