"""What only the notebooks need: their pictures. It wants matplotlib, which ``pip install clnn[course]`` brings."""
