"""REST API and web page: a client of the gRPC API that knows neither Redis nor models."""
