"""One module per display item: its knobs, from results to the plotted data, and the drawing."""
