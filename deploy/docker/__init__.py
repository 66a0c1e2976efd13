"""The services in Docker, as `docker-compose.yml` describes them."""
