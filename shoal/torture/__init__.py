"""`shoal torture`: everything is killed again and again; an oracle outside says what became of each reading.

command       the command line: one run, its table, its verdict
run           the acts: start, produce while killing, bring home, judge
cast          who plays: plant, processes, their settings
stage         the processes: start, freeze, kill, cut the power of, start again
producer      devices outside the system; each burst goes to the oracle before it is sent
oracle        that file: one line per burst
witness       what was handed over on the bus and is not confirmed yet
executioner   whom to kill, when, and that something was at stake
checker       the books: produced = stored + rejected with a reason + counted gaps, to the reading and to the value
series        the rows of one series against what was sent
events        the records of events against what happened
verdict       what was found
influx        a private InfluxDB 1.x
powercut      what a disk holds after a power cut: what was synced, and by chance some of the rest
"""
