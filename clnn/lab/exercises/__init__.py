"""The checks of the course's exercises: one module for each notebook, imported when one of its checks is asked for."""
