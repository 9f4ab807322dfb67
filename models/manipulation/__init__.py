"""One picture of a hand with objects → joints, object poses, contacts: a transformer in three sizes."""
