"""`python -m benchmarks.model`. Candidates' processes import this file too, so it imports nothing at the top."""

if __name__ == "__main__":
    from benchmarks.model.run import main

    main()
