"""What the files of a run may hold. A run may come from anywhere: nothing in it is believed before it is checked."""
