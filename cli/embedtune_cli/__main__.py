"""`python -m embedtune_cli`, which is how torchrun and accelerate launch the command line."""

from .app import main

if __name__ == "__main__":
    main()
