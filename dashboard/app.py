"""The dashboard: `python -m streamlit run dashboard/app.py` from the project's root."""

from pathlib import Path

import streamlit as st

from dashboard.components.sidebar import draw_sidebar
from dashboard.server import upload_retention

# A file: a Material icon in the tab would be fetched from the network.
ICON = Path(__file__).with_name("icon.svg")
# Page -> its section, its title and its icon.
PAGES = {
    "overview": ("Results", "Overview", ":material/leaderboard:"),
    "confusion": ("Results", "Confusion matrices", ":material/grid_on:"),
    "errors": ("Results", "Errors", ":material/image_search:"),
    "predict": ("Try it", "Predict", ":material/upload_file:"),
    "trust": ("Evidence", "Reliability checks", ":material/verified_user:"),
    "curves": ("Evidence", "Curves and thresholds", ":material/stacked_line_chart:"),
    "protocol": ("Evidence", "Cross-validation", ":material/rule:"),
    "labels": ("Evidence", "Labels", ":material/fact_check:"),
    "zoo": ("Background", "All models", ":material/format_list_numbered:"),
    "training": ("Background", "Training", ":material/show_chart:"),
    "data": ("Background", "Data", ":material/folder_open:"),
}

upload_retention.guard_uploads()
st.set_page_config(page_title="Chest X-ray models", page_icon=ICON, layout="wide")
sections: dict[str, list] = {}
for name, (section, title, icon) in PAGES.items():
    first = name == "overview"
    page = st.Page(
        f"app_pages/{name}.py",
        title=title,
        icon=icon,
        url_path="home" if first else name,  # the default page's stays unused
        default=first,
    )
    sections.setdefault(section, []).append(page)
# The first page is at the root; its own address leads there too.
alias = st.Page("app_pages/overview.py", title="Overview", url_path="overview", visibility="hidden")
sections["Results"].append(alias)
chosen = st.navigation(sections, expanded=True)
draw_sidebar(chosen.url_path or "overview")
chosen.run()
