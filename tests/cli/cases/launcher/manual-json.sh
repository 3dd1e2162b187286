# The table, for programs.
qallow help completion --json
