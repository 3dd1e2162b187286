qallow help completion
