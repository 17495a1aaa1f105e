"""What is measured about a trained student, and the statistics that summarise runs. Nothing here touches a file."""
