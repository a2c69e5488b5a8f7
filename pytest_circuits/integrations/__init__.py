"""Files and names of other tools: what they say, and how to say it to them."""
