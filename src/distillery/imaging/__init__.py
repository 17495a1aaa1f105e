"""Operations on whole batches of images, on any device, and the random numbers that they take."""
