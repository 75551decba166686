"""Layers, shapes, parameters, multiply-adds and receptive fields of a net, counted from its shapes."""
