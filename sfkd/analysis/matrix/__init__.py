"""Which networks can teach and be taught, and which stock tools work on a distilling student."""
