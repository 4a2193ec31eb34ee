/*
 * Preloaded beside libasan. With that in a process, libraries that look for their translations while they are loaded
 * (libgpg-error, below the server's libldap) leave a lock of gettext behind, and the server's own call waits for ever.
 * We need no translations.
 */
char	   *bindtextdomain(const char *domain, const char *directory);

char *
bindtextdomain(const char *domain, const char *directory)
{
	return (char *) directory;
}
