"""`python -m benchmarks.data`. Local workers import this file as it is, so it imports nothing before it runs."""

if __name__ == "__main__":
    from benchmarks.data.run import main

    main()
