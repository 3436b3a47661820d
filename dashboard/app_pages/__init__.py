"""The pages; Streamlit runs each as a script."""
