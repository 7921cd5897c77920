"""From a prompt to a layout: the offline planner, language models' replies, and the checker with its repair."""
