"""What every store promises. Each public function of these modules is one check; its docstring is the promise."""
