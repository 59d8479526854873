"""Which factor of a product is the left one: a CPU's library takes up to twice as long one way as the other."""

_FEW_COLUMNS = 24


def better_right(columns: int, others: int) -> bool:
    """Whether a factor of so many columns is the right one of a product over rows that lie in memory behind them. The library
    copies that into another order, so it is the one of few; of more than 24, where it is the product that takes long, the one
    that leaves less of 16 columns unused."""
    if min(columns, others) <= _FEW_COLUMNS:
        return columns <= others
    return (-columns % 16 / columns, columns) <= (-others % 16 / others, others)
