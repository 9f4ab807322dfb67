"""What both SO-101 trainings share: the simulated table with a look that varies, and how pictures are spoilt."""
