"""What is computed: all machine learning, in one process; knows neither Redis nor Ray."""
