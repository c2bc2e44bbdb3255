"""The boards that bitloop knows: data only."""

from bitloop.boards.catalogue import BOARDS, Board, Emulator, find_board

__all__ = ["BOARDS", "Board", "Emulator", "find_board"]
