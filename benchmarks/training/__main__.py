"""`python -m benchmarks.training`. Its workers import this file too, so it imports nothing at the top."""

if __name__ == "__main__":
    from benchmarks.training.run import main

    main()
