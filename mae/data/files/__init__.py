"""Which files a data set has, and what both kinds of set do with them."""
