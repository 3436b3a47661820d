"""The dashboard: `python -m streamlit run dashboard/app.py` from the project's root."""

from pathlib import Path

import streamlit as st

from dashboard.components.sidebar import draw_sidebar
from dashboard.server import upload_retention

# A file: a Material icon in the tab would be fetched from the network.
ICON = Path(__file__).with_name("icon.svg")
PAGES = {
    "overview": ("Overview", ":material/leaderboard:"),
    "confusion": ("Confusion", ":material/grid_on:"),
    "errors": ("Errors", ":material/image_search:"),
    "predict": ("Predict", ":material/upload_file:"),
    "trust": ("Trust", ":material/verified_user:"),
    "labels": ("Labels", ":material/fact_check:"),
    "curves": ("Curves", ":material/stacked_line_chart:"),
    "protocol": ("Protocol", ":material/rule:"),
    "zoo": ("Zoo", ":material/format_list_numbered:"),
    "training": ("Training", ":material/show_chart:"),
    "data": ("Data", ":material/folder_open:"),
}

upload_retention.guard_uploads()
st.set_page_config(page_title="Chest X-ray models", page_icon=ICON, layout="wide")
page = st.navigation(
    [
        st.Page(
            f"app_pages/{name}.py",
            title=title,
            icon=icon,
            url_path=name,
            default=name == "overview",
        )
        for name, (title, icon) in PAGES.items()
    ]
)
draw_sidebar()
page.run()
