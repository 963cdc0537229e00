"""One HTML file that tells how an evaluation went: `page.write_report` is the one way in; the command line calls it.

provenance.py   how an evaluation was made, for its record: command, commit, versions
inputs.py       the evaluation folder, read and checked
training.py     the logs of training, read and checked
verdict.py      which model is best, and is that certain?
scales.py       data -> places on paper: linear and logarithmic axes with round ticks
labels.py       names beside what they name, none upon another
chart.py        lines, points and intervals -> SVG text
figures.py      what an evaluation says -> charts
wording.py      facts -> plain English
page.py         all of it through templates/ -> one file
"""
