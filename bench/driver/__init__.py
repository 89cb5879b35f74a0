"""The driver of `bench/run`: starts what is compared, lets it work, reads what it cost."""
