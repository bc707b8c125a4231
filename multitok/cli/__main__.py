"""`python -m multitok.cli`, for where the script `multitok` is not on the path."""

from multitok.cli import main

if __name__ == "__main__":
    main()
