"""Chaos: the whole job on a simulated cluster whose parts are killed at random while it runs.

    schedule.py    a seed -> which faults, at which progress of the job: pure
    footage.py     the clips, healthy and not, and what must become of each
    cluster.py     a Ray cluster of several raylets on this machine, and ways to hurt it
    store.py       SeaweedFS that can be killed and started again on the same data
    driver.py      ``s2vc compress`` as a process of its own
    run.py         one run: fire the schedule, then have the destination checked
    check.py       a destination's bytes against the truth, in a fresh process; knows nothing of the run

``python -m jobs.bench chaos`` makes many runs; ``test_chaos.py`` makes a short one.
"""
