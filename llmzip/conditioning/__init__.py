"""Conditioning: vectors that steer a model, quantised and coded under distributions that travel with them."""
