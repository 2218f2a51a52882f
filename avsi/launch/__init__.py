"""Where trials run: in this process, in local processes, on Ray; options, command line and display."""
