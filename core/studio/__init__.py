"""What the studio's pages show and do beyond what the API's resources do."""
