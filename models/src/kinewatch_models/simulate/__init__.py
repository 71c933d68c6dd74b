"""A rendered room in which people walk, fall and get up: video without anyone's privacy, truth exact to the frame.

`scenario` stages a script with a seed (`performance`, `mocap`, and `ragdoll`, the only user of PyBullet), `clip`
turns it into frames (`furnish`, `room`, `body`, `draw`), `video` and `render` write MP4 and annotations, `cli` is the
command.

What it does not do: people who touch each other, pets and other things that move. Crawling and rolling are one pass of
a captured motion each.
"""
