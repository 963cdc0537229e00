"""Studies: many trainings under one protocol, side by side, with intervals; kept trial by trial."""
