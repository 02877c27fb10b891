"""`python -m kubewright`: the same as the console script."""

from kubewright.cli import main

if __name__ == "__main__":
    main()
