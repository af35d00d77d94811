"""What `triptych router train` makes of a table; from other sets, what the artefact `real` sets models apart by."""

from router.bench import Trained

NAME, ABOUT = "triptych", "`triptych router train`; without ratings of one's own, the hand rule, as the artefact `real`"
learn, carry = Trained.learn, Trained.carry
