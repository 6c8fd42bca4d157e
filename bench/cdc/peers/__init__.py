"""The tools that follow the same table, each with the settings that its documentation gives for speed."""
