"""Programs that receive an app's lines, each from one of the subjects, and say when they had them.

They run in the environments of what they measure, so they import nothing but that.
A receiver prints `ready` once it is attached, and then its result as one line of JSON.

    count LINES   receives that many lines; the time (Unix, in ns) at which it had the last
    ticks LINES   receives lines that hold when they were written; their latencies, in ms
    read LINES    reads that many lines that are there; the seconds that it took
    lines LINES   the same, and handles each as text
"""
