"""`python -m benchmarks.data`. Local workers import this file too, so it imports nothing at the top."""

if __name__ == "__main__":
    from benchmarks.data.run import main

    main()
